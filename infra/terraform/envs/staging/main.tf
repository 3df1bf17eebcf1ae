# The staging environment. Values: terraform.tfvars. Composition: modules/environment. Tests: tests/staging.tftest.hcl.

locals {
  tags = {
    Project     = "plumbline"
    Service     = "orders"
    Environment = var.environment
    Owner       = var.owner
    CostCenter  = var.cost_center
    ManagedBy   = "terraform/envs/staging"
    Repository  = var.repository
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}

# Route 53 takes DNSSEC keys and query logs from this region only.
provider "aws" {
  alias               = "us_east_1"
  region              = "us-east-1"
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}

module "environment" {
  source = "../../modules/environment"

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  environment         = var.environment
  account_id          = var.account_id
  region              = var.region
  az_ids              = var.az_ids
  vpc_cidr            = var.vpc_cidr
  nat_gateway_count   = var.nat_gateway_count
  interface_endpoints = var.interface_endpoints
  domain_name         = var.domain_name
  host_labels         = var.host_labels
  log_retention_days  = var.log_retention_days
  cluster             = var.cluster
  database            = var.database
  cache               = var.cache
  kafka               = var.kafka
  registry            = var.registry
  edge                = var.edge
  load_balancer       = var.load_balancer
}

# Warnings, not errors: the first apply cannot know either.
check "certificate_is_usable" {
  assert {
    condition     = var.edge.delegated
    error_message = "${var.domain_name} is not delegated yet: set the name servers of output `name_servers` at the parent domain, then edge.delegated = true."
  }
}

check "names_point_somewhere" {
  assert {
    condition     = var.load_balancer != null
    error_message = "No alias records yet: after the chart's Ingress has made the load balancer, set load_balancer to its DNS name, zone id and ARN suffix."
  }
}
