# TLS required, at-rest key, IAM users, only expiring keys are evicted.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                      = "orders-test"
  vpc_id                    = "vpc-0"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  client_security_group_ids = { cluster = "sg-1" }
  node_type                 = "cache.m7g.large"
  node_count                = 3
  failover                  = true
  snapshot_retention_days   = 7
  kms_key_arn               = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  logs_kms_key_arn          = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days        = 90
  alerts_topic_arn          = "arn:aws:sns:us-east-1:111122223333:mock"
}

run "group" {
  command = plan

  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required"
    error_message = "TLS, required"
  }

  assert {
    condition     = aws_elasticache_replication_group.this.at_rest_encryption_enabled && aws_elasticache_replication_group.this.kms_key_id != null
    error_message = "encrypted at rest with our key"
  }

  assert {
    condition     = aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "a replica takes over"
  }

  assert {
    condition     = alltrue([for user in values(aws_elasticache_user.this) : one(user.authentication_mode).type == "iam" && user.user_id == user.user_name])
    error_message = "IAM users; ElastiCache wants id = name"
  }

  assert {
    condition     = alltrue([for user in values(aws_elasticache_user.this) : strcontains(user.access_string, "-@admin") && strcontains(user.access_string, "-@dangerous")])
    error_message = "no administration from the service"
  }

  assert {
    condition     = one(aws_elasticache_parameter_group.this.parameter).value == "volatile-lru"
    error_message = "only expiring keys are evicted"
  }

  assert {
    condition     = one(values(aws_vpc_security_group_ingress_rule.this)).from_port == 6379
    error_message = "6379 only"
  }

  assert {
    condition     = length(aws_elasticache_replication_group.this.log_delivery_configuration) == 2
    error_message = "slow and engine logs"
  }
}

run "refuses_failover_alone" {
  command = plan

  variables {
    node_count = 1
  }

  expect_failures = [var.failover]
}
