# Three of everything that must survive a zone. Firewall rules count first; waf_blocks = true a week after the first traffic.
# Accounts, domain, owner and repository are examples: replace them.
environment = "prod"
account_id  = "777788889999"
region      = "us-east-1"
owner       = "orders-team"
cost_center = "orders"
repository  = "example/plumbline"
domain_name = "orders.example.com"
host_labels = ["api"]

# use1-az3 does not take EKS control planes.
az_ids              = ["use1-az1", "use1-az2", "use1-az4"]
vpc_cidr            = "10.40.0.0/16"
nat_gateway_count   = 3
interface_endpoints = ["ecr.api", "ecr.dkr", "sts", "secretsmanager", "logs", "kms", "eks-auth"]
log_retention_days  = 365

cluster = {
  version             = "1.35"
  node_type           = "m7g.large"
  nodes_min           = 3
  nodes_max           = 9
  public_access_cidrs = []
}

database = {
  min_acu             = 2
  max_acu             = 32
  instances           = 3
  backup_days         = 35
  backup_vault        = true
  deletion_protection = true
}

cache = {
  node_type     = "cache.m7g.large"
  nodes         = 3
  failover      = true
  snapshot_days = 7
}

kafka = {
  broker_type    = "kafka.m7g.large"
  volume_gib     = 200
  volume_max_gib = 2000
}

registry = {
  create           = true
  pull_account_ids = ["111122223333", "444455556666"]
}

edge = {
  delegated  = false
  dnssec     = true
  waf_blocks = false
}
