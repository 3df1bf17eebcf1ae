variable "environment" {
  type        = string
  description = "Name of the environment."

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "dev, staging or prod."
  }
}

variable "account_id" {
  type        = string
  description = "AWS account, 12 digits."

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "Twelve digits, as printed by `aws sts get-caller-identity`."
  }
}

variable "region" {
  type        = string
  description = "AWS region."

  validation {
    condition     = can(regex("^[a-z]{2}-[a-z]+-[0-9]$", var.region))
    error_message = "A region name such as us-east-1."
  }
}

variable "az_ids" {
  type        = list(string)
  description = "Three zone ids (not names: names differ between accounts)."

  validation {
    condition     = length(var.az_ids) == 3 && length(distinct(var.az_ids)) == 3 && alltrue([for id in var.az_ids : can(regex("^[a-z]{3}[0-9]-az[0-9]$", id))])
    error_message = "Three different zone ids such as use1-az1."
  }
}

variable "vpc_cidr" {
  type        = string
  description = "Address range of the VPC, a /16."

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "A /16 such as 10.20.0.0/16."
  }
}

variable "nat_gateway_count" {
  type        = number
  description = "NAT gateways: 1 (cheap) or 3 (a lost zone takes only itself)."

  validation {
    condition     = contains([1, 3], var.nat_gateway_count)
    error_message = "1 or 3."
  }
}

variable "interface_endpoints" {
  type        = set(string)
  description = "Services reached by a private endpoint, as in com.amazonaws.<region>.<name>."
  default     = []

  validation {
    condition     = alltrue([for endpoint in var.interface_endpoints : can(regex("^[a-z0-9.-]+$", endpoint))])
    error_message = "Service names such as ecr.api."
  }
}

variable "domain_name" {
  type        = string
  description = "Public zone."

  validation {
    condition     = can(regex("^[a-z0-9.-]+\\.[a-z]{2,}$", var.domain_name))
    error_message = "A domain name: orders.example.com."
  }
}

variable "host_labels" {
  type        = list(string)
  description = "Hosts below the zone that the load balancer serves."

  validation {
    condition     = length(var.host_labels) > 0
    error_message = "At least one label: api."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that logs are kept."

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400, 731], var.log_retention_days)
    error_message = "CloudWatch takes 7, 14, 30, 60, 90, 180, 365, 400 or 731 days."
  }
}

variable "cluster" {
  type = object({
    version             = string
    public_access_cidrs = list(string)
    node_type           = string
    nodes_min           = number
    nodes_max           = number
    admin_role_arn      = optional(string)
  })
  description = "Kubernetes: version, who reaches the API server, nodes, administrators' role."

  validation {
    condition     = var.cluster.nodes_max >= var.cluster.nodes_min && !contains(var.cluster.public_access_cidrs, "0.0.0.0/0")
    error_message = "nodes_max must not be below nodes_min, and the API server is never open to 0.0.0.0/0: name your networks."
  }
}

variable "database" {
  type = object({
    min_acu             = number
    max_acu             = number
    instances           = number
    backup_days         = number
    backup_vault        = bool
    deletion_protection = bool
  })
  description = "Aurora: capacity, instances, backups."

  validation {
    condition     = var.database.max_acu > var.database.min_acu
    error_message = "max_acu must be above min_acu."
  }
}

variable "cache" {
  type = object({
    node_type     = string
    nodes         = number
    failover      = bool
    snapshot_days = number
  })
  description = "Valkey: nodes, snapshots."

  validation {
    condition     = var.cache.nodes >= 1
    error_message = "At least one node."
  }
}

variable "kafka" {
  type = object({
    broker_type    = string
    volume_gib     = number
    volume_max_gib = number
  })
  description = "MSK: brokers, disks."

  validation {
    condition     = var.kafka.volume_max_gib >= var.kafka.volume_gib
    error_message = "volume_max_gib must not be below volume_gib."
  }
}

variable "registry" {
  type = object({
    create           = bool
    pull_account_ids = list(string)
  })
  description = "Image registry: one for all environments, held by prod."

  validation {
    condition     = var.registry.create || length(var.registry.pull_account_ids) == 0
    error_message = "pull_account_ids belong to the account that holds the registry."
  }
}

variable "edge" {
  type = object({
    delegated  = bool
    dnssec     = bool
    waf_blocks = bool
  })
  description = "Zone and firewall: delegated at the parent, signed, blocking."

  validation {
    condition     = !var.edge.waf_blocks || var.edge.delegated
    error_message = "Block only after the zone is live and its counts were read."
  }
}

variable "load_balancer" {
  type = object({
    dns_name   = string
    zone_id    = string
    arn_suffix = string
  })
  description = "The load balancer made from the chart's Ingress; null before the first deployment."
  default     = null

  validation {
    condition     = var.load_balancer == null ? true : endswith(var.load_balancer.dns_name, ".elb.amazonaws.com")
    error_message = "The DNS name ends in .elb.amazonaws.com."
  }
}

variable "owner" {
  type        = string
  description = "Tag: the team that answers."

  validation {
    condition     = length(var.owner) > 0
    error_message = "A team."
  }
}

variable "cost_center" {
  type        = string
  description = "Tag: who pays."

  validation {
    condition     = length(var.cost_center) > 0
    error_message = "A cost centre."
  }
}

variable "repository" {
  type        = string
  description = "Tag: GitHub repository, owner/name."

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.repository))
    error_message = "owner/name."
  }
}
