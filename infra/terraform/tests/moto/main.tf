# The modules that a fake AWS (moto) can really make without drift, applied, planned again (must be empty), destroyed.
# Left out, because moto refuses, drifts or hangs: eks, aurora, elasticache, msk, notifications-sqs, Pod Identity
# associations and DNSSEC. Those are held by the mock tests only. Run: deploy/verify/terraform.py tf-moto.

terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.0"
    }
  }

  # The bucket made by bootstrap, on the same fake: so the lock file in S3 is tried too.
  backend "s3" {}
}

provider "aws" {
  region                      = local.region
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

provider "aws" {
  alias                       = "us_east_1"
  region                      = "us-east-1"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

locals {
  name       = "orders-dev"
  account_id = "123456789012" # moto's account
  region     = "us-east-1"
  fake       = "${local.region}:${local.account_id}"
}

module "kms" {
  source = "../../modules/kms"

  name       = local.name
  account_id = local.account_id
  region     = local.region
}

module "network" {
  source = "../../modules/network"

  name                = local.name
  account_id          = local.account_id
  region              = local.region
  cidr                = "10.20.0.0/16"
  az_ids              = ["use1-az1", "use1-az2", "use1-az4"]
  nat_gateway_count   = 3
  interface_endpoints = ["ecr.api", "sts"]
  log_retention_days  = 30
  logs_kms_key_arn    = module.kms.key_arns["logs"]
}

module "ecr" {
  source = "../../modules/ecr"

  repository       = "plumbline"
  kms_key_arn      = module.kms.key_arns["data"]
  pull_account_ids = ["444455556666"]
}

module "secrets" {
  source = "../../modules/secrets"

  account_id           = local.account_id
  kms_key_arn          = module.kms.key_arns["data"]
  recovery_window_days = 7
  secrets              = { "orders/app" = "app", "orders/migrate" = "migrate" }
}

module "edge" {
  source = "../../modules/edge"

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  name               = local.name
  account_id         = local.account_id
  region             = local.region
  domain_name        = "dev.orders.example.com"
  host_labels        = ["api"]
  delegated          = true
  dnssec             = false
  waf_blocks         = true
  load_balancer      = { dns_name = "x-1.us-east-1.elb.amazonaws.com", zone_id = "Z35SXDOTRQ7X7K", arn_suffix = "app/x/1" }
  logs_kms_key_arn   = module.kms.key_arns["logs"]
  log_retention_days = 30
}

module "pod_identity" {
  source = "../../modules/pod-identity"

  name                 = local.name
  account_id           = local.account_id
  region               = local.region
  cluster_name         = local.name
  cluster_arn          = "arn:aws:eks:${local.fake}:cluster/${local.name}"
  vpc_arn              = module.network.vpc_arn
  database_resource_id = "cluster-FAKE"
  cache_arn            = "arn:aws:elasticache:${local.fake}:replicationgroup:${local.name}"
  kafka_cluster_arn    = "arn:aws:kafka:${local.fake}:cluster/${local.name}/00000000-1"
  secret_arns          = values(module.secrets.arns)
  data_kms_key_arn     = module.kms.key_arns["data"]
  certificate_arns     = [module.edge.certificate_arn]
  web_acl_arns         = [module.edge.web_acl_arn]
  associate            = false
}

resource "aws_sns_topic" "alerts" {
  name              = "${local.name}-alerts"
  kms_master_key_id = module.kms.key_arns["alerts"]
}

module "observability" {
  source = "../../modules/observability"

  name                     = local.name
  region                   = local.region
  alerts_topic_arn         = aws_sns_topic.alerts.arn
  database_cluster_id      = local.name
  kafka_cluster_name       = local.name
  web_acl_name             = local.name
  cache_nodes              = ["${local.name}-001"]
  nat_gateway_ids          = module.network.nat_gateway_ids
  load_balancer_arn_suffix = "app/x/1"
}

module "api_gateway" {
  source = "../../modules/api-gateway"

  name                            = local.name
  vpc_id                          = module.network.vpc_id
  subnet_ids                      = module.network.private_subnet_ids
  load_balancer_security_group_id = aws_security_group.load_balancer.id
  listener_arn                    = "arn:aws:elasticloadbalancing:${local.fake}:listener/app/x/1/2"
  server_name                     = "api.dev.orders.example.com"
  issuer                          = "https://issuer.example.com"
  logs_kms_key_arn                = module.kms.key_arns["logs"]
  log_retention_days              = 30
}

resource "aws_security_group" "load_balancer" {
  name        = "${local.name}-alb"
  description = "Stands for the group that the load balancer controller makes"
  vpc_id      = module.network.vpc_id
}
