# The shape of prod with less of it: every failover can be rehearsed here.
# Accounts, domain, owner and repository are examples: replace them.
environment = "staging"
account_id  = "444455556666"
region      = "us-east-1"
owner       = "orders-team"
cost_center = "orders"
repository  = "example/plumbline"
domain_name = "staging.orders.example.com"
host_labels = ["api"]

# use1-az3 does not take EKS control planes.
az_ids              = ["use1-az1", "use1-az2", "use1-az4"]
vpc_cidr            = "10.30.0.0/16"
nat_gateway_count   = 1
interface_endpoints = ["ecr.api", "ecr.dkr", "sts", "secretsmanager", "logs", "kms", "eks-auth"]
log_retention_days  = 90

cluster = {
  version             = "1.35"
  node_type           = "m7g.large"
  nodes_min           = 2
  nodes_max           = 6
  public_access_cidrs = []
}

database = {
  min_acu             = 0.5
  max_acu             = 4
  instances           = 2
  backup_days         = 7
  backup_vault        = false
  deletion_protection = true
}

cache = {
  node_type     = "cache.t4g.small"
  nodes         = 2
  failover      = true
  snapshot_days = 1
}

kafka = {
  broker_type    = "kafka.m7g.large"
  volume_gib     = 100
  volume_max_gib = 500
}

registry = {
  create           = false
  pull_account_ids = []
}

edge = {
  delegated  = false
  dnssec     = false
  waf_blocks = false
}
