# One whole environment, composed. dev, staging and prod call this module and differ in their terraform.tfvars only.
# Tests: envs/*/tests assert each environment's values through the outputs.

locals {
  name          = "orders-${var.environment}"
  data_clients  = { cluster = module.eks.cluster_security_group_id }
  cache_nodes   = [for index in range(var.cache.nodes) : format("%s-%03d", local.name, index + 1)]
  state_deploys = "arn:aws:iam::${var.account_id}:role/gha-apply-${var.environment}"
}

# The alert topic stands here, not in `observability`: Aurora and Valkey publish to it, the alarms look at them.
resource "aws_sns_topic" "alerts" {
  name              = "${local.name}-alerts"
  kms_master_key_id = module.kms.key_arns["alerts"]
}

resource "aws_sns_topic_policy" "alerts" {
  arn = aws_sns_topic.alerts.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AlarmsAndDatabaseEventsOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "events.rds.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alerts.arn
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

module "kms" {
  source = "../kms"

  name       = local.name
  account_id = var.account_id
  region     = var.region
}

module "network" {
  source = "../network"

  name                = local.name
  account_id          = var.account_id
  region              = var.region
  cidr                = var.vpc_cidr
  az_ids              = var.az_ids
  nat_gateway_count   = var.nat_gateway_count
  interface_endpoints = var.interface_endpoints
  log_retention_days  = var.log_retention_days
  logs_kms_key_arn    = module.kms.key_arns["logs"]
}

module "eks" {
  source = "../eks"

  name                = local.name
  account_id          = var.account_id
  kubernetes_version  = var.cluster.version
  subnet_ids          = module.network.private_subnet_ids
  public_access_cidrs = var.cluster.public_access_cidrs
  node_instance_type  = var.cluster.node_type
  workload_nodes      = { min = var.cluster.nodes_min, max = var.cluster.nodes_max }
  kms_key_arn         = module.kms.key_arns["cluster"]
  logs_kms_key_arn    = module.kms.key_arns["logs"]
  log_retention_days  = var.log_retention_days

  access = merge(
    { gha-deploy = { principal_arn = local.state_deploys, policy = "AmazonEKSEditPolicy", namespaces = ["orders"], groups = ["plumbline:deployers"] } },
    var.cluster.admin_role_arn == null ? {} : { platform-admin = { principal_arn = var.cluster.admin_role_arn, policy = "AmazonEKSClusterAdminPolicy", namespaces = [], groups = [] } },
  )
}

module "aurora" {
  source = "../aurora"

  name                      = local.name
  account_id                = var.account_id
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = local.data_clients
  min_acu                   = var.database.min_acu
  max_acu                   = var.database.max_acu
  instance_count            = var.database.instances
  backup_retention_days     = var.database.backup_days
  backup_vault              = var.database.backup_vault
  deletion_protection       = var.database.deletion_protection
  kms_key_arn               = module.kms.key_arns["data"]
  logs_kms_key_arn          = module.kms.key_arns["logs"]
  log_retention_days        = var.log_retention_days
  alerts_topic_arn          = aws_sns_topic.alerts.arn
}

module "elasticache" {
  source = "../elasticache"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = local.data_clients
  node_type                 = var.cache.node_type
  node_count                = var.cache.nodes
  failover                  = var.cache.failover
  snapshot_retention_days   = var.cache.snapshot_days
  kms_key_arn               = module.kms.key_arns["data"]
  logs_kms_key_arn          = module.kms.key_arns["logs"]
  log_retention_days        = var.log_retention_days
  alerts_topic_arn          = aws_sns_topic.alerts.arn
}

module "msk" {
  source = "../msk"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.data_subnet_ids
  client_security_group_ids = local.data_clients
  broker_type               = var.kafka.broker_type
  volume_gib                = var.kafka.volume_gib
  volume_max_gib            = var.kafka.volume_max_gib
  kms_key_arn               = module.kms.key_arns["data"]
  logs_kms_key_arn          = module.kms.key_arns["logs"]
  log_retention_days        = var.log_retention_days
}

module "ecr" {
  source = "../ecr"
  count  = var.registry.create ? 1 : 0

  repository       = "plumbline"
  kms_key_arn      = module.kms.key_arns["data"]
  pull_account_ids = var.registry.pull_account_ids
}

module "secrets" {
  source = "../secrets"

  account_id           = var.account_id
  kms_key_arn          = module.kms.key_arns["data"]
  recovery_window_days = var.database.deletion_protection ? 30 : 7
  secrets = {
    "orders/app"     = "DATABASE_URL and REDIS_URL of API, workers, relay and reaper (JSON properties)"
    "orders/migrate" = "DATABASE_URL of the schema's owner (JSON property)"
  }
}

module "edge" {
  source = "../edge"

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  name               = local.name
  account_id         = var.account_id
  region             = var.region
  domain_name        = var.domain_name
  host_labels        = var.host_labels
  delegated          = var.edge.delegated
  dnssec             = var.edge.dnssec
  waf_blocks         = var.edge.waf_blocks
  load_balancer      = var.load_balancer
  logs_kms_key_arn   = module.kms.key_arns["logs"]
  log_retention_days = var.log_retention_days
}

module "pod_identity" {
  source = "../pod-identity"

  name                 = local.name
  account_id           = var.account_id
  region               = var.region
  cluster_name         = module.eks.cluster_name
  cluster_arn          = module.eks.cluster_arn
  vpc_arn              = module.network.vpc_arn
  database_resource_id = module.aurora.cluster_resource_id
  cache_arn            = module.elasticache.arn
  kafka_cluster_arn    = module.msk.cluster_arn
  secret_arns          = values(module.secrets.arns)
  data_kms_key_arn     = module.kms.key_arns["data"]
  certificate_arns     = [module.edge.certificate_arn]
  web_acl_arns         = [module.edge.web_acl_arn]
}

module "observability" {
  source = "../observability"

  name                     = local.name
  region                   = var.region
  alerts_topic_arn         = aws_sns_topic.alerts.arn
  database_cluster_id      = local.name
  kafka_cluster_name       = local.name
  web_acl_name             = local.name
  cache_nodes              = local.cache_nodes
  nat_gateway_ids          = module.network.nat_gateway_ids
  load_balancer_arn_suffix = var.load_balancer == null ? null : var.load_balancer.arn_suffix
}
