# Valkey for the cache and the rate limiter: TLS, at-rest key, IAM users. Never the record of anything:
# losing it costs latency, not orders. Tests: tests/elasticache.tftest.hcl.

locals {
  # An IAM user of ElastiCache must have the same id and name.
  users = {
    # The service's own keys and scripts; nothing that reads or changes the server itself.
    api    = "on ~* +@all -@admin -@dangerous"
    worker = "on ~* +@all -@admin -@dangerous"
  }
}

resource "aws_security_group" "this" {
  name        = "${var.name}-valkey"
  description = "Valkey from the cluster's pods"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-valkey" }
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.this.id
  description                  = "Valkey from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Data subnets of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-valkey8"
  family      = "valkey8"
  description = "Only keys with an expiry may be evicted"

  parameter {
    # Every key of the service expires. allkeys-* could drop a limiter's key before a cache entry.
    name  = "maxmemory-policy"
    value = "volatile-lru"
  }
}

resource "aws_elasticache_user" "this" {
  for_each = local.users

  user_id       = "${var.name}-${each.key}"
  user_name     = "${var.name}-${each.key}"
  engine        = "valkey"
  access_string = each.value

  authentication_mode {
    type = "iam"
  }
}

resource "aws_elasticache_user_group" "this" {
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = [for user in values(aws_elasticache_user.this) : user.user_id]
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["slow-log", "engine-log"])

  name              = "/plumbline/${var.name}/valkey/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id = var.name
  description          = "Cache and rate limits of ${var.name}"
  engine               = "valkey"
  engine_version       = "8.0"
  node_type            = var.node_type
  num_cache_clusters   = var.node_count
  port                 = 6379
  parameter_group_name = aws_elasticache_parameter_group.this.name

  multi_az_enabled           = var.failover
  automatic_failover_enabled = var.failover

  subnet_group_name  = aws_elasticache_subnet_group.this.name
  security_group_ids = [aws_security_group.this.id]
  user_group_ids     = [aws_elasticache_user_group.this.user_group_id]

  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"

  snapshot_retention_limit   = var.snapshot_retention_days
  snapshot_window            = "02:00-03:00"
  maintenance_window         = "sun:04:00-sun:05:00"
  auto_minor_version_upgrade = true
  notification_topic_arn     = var.alerts_topic_arn
  apply_immediately          = false

  dynamic "log_delivery_configuration" {
    for_each = aws_cloudwatch_log_group.this
    content {
      destination      = log_delivery_configuration.value.name
      destination_type = "cloudwatch-logs"
      log_format       = "json"
      log_type         = log_delivery_configuration.key
    }
  }
}
