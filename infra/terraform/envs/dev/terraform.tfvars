# Small and deletable: no standby, no private endpoints, one NAT gateway. The office reaches the API server.
# Accounts, domain, owner and repository are examples: replace them.
environment = "dev"
account_id  = "111122223333"
region      = "us-east-1"
owner       = "orders-team"
cost_center = "orders"
repository  = "example/plumbline"
domain_name = "dev.orders.example.com"
host_labels = ["api"]

# use1-az3 does not take EKS control planes.
az_ids              = ["use1-az1", "use1-az2", "use1-az4"]
vpc_cidr            = "10.20.0.0/16"
nat_gateway_count   = 1
interface_endpoints = []
log_retention_days  = 30

cluster = {
  version             = "1.35"
  node_type           = "m7g.large"
  nodes_min           = 2
  nodes_max           = 4
  public_access_cidrs = ["198.51.100.0/24"]
}

database = {
  min_acu             = 0.5
  max_acu             = 2
  instances           = 1
  backup_days         = 1
  backup_vault        = false
  deletion_protection = false
}

cache = {
  node_type     = "cache.t4g.small"
  nodes         = 1
  failover      = false
  snapshot_days = 0
}

kafka = {
  broker_type    = "kafka.t3.small"
  volume_gib     = 20
  volume_max_gib = 50
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
