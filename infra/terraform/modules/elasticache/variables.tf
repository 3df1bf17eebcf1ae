variable "name" {
  type        = string
  description = "Prefix of every name, as `orders-prod`."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 3 to 31 characters: orders-prod."
  }
}

variable "vpc_id" {
  type        = string
  description = "VPC to live in."

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "A VPC id: vpc-…"
  }
}

variable "subnet_ids" {
  type        = list(string)
  description = "Three subnets, one a zone."

  validation {
    condition     = length(var.subnet_ids) == 3
    error_message = "Exactly three subnets, one a zone."
  }
}

variable "client_security_group_ids" {
  type        = map(string)
  description = "Who may connect: a label (static, it becomes a key) to a security group."

  validation {
    condition     = length(var.client_security_group_ids) > 0
    error_message = "At least one client, or nothing can connect."
  }
}

variable "node_type" {
  type        = string
  description = "Node type; Graviton."

  validation {
    condition     = can(regex("^cache\\.[a-z]+[0-9]g", var.node_type))
    error_message = "A Graviton cache node: cache.t4g.small."
  }
}

variable "node_count" {
  type        = number
  description = "1 (dev: a failure empties the cache), 2 or 3."

  validation {
    condition     = contains([1, 2, 3], var.node_count)
    error_message = "1, 2 or 3."
  }
}

variable "failover" {
  type        = bool
  description = "Zones differ and a replica takes over; needs two nodes."

  validation {
    condition     = !var.failover || var.node_count > 1
    error_message = "Failover needs at least two nodes: set node_count = 2 or failover = false."
  }
}

variable "snapshot_retention_days" {
  type        = number
  description = "Days that snapshots are kept; 0: none."

  validation {
    condition     = var.snapshot_retention_days >= 0 && var.snapshot_retention_days <= 35
    error_message = "0 to 35."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "Key for data at rest."

  validation {
    condition     = can(regex("^arn:aws:", var.kms_key_arn))
    error_message = "The ARN of a KMS key (an output of module kms)."
  }
}

variable "logs_kms_key_arn" {
  type        = string
  description = "Key of the CloudWatch log groups."

  validation {
    condition     = can(regex("^arn:aws:", var.logs_kms_key_arn))
    error_message = "The ARN of a KMS key (output key_arns[\"logs\"] of module kms)."
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

variable "alerts_topic_arn" {
  type        = string
  description = "SNS topic that people listen to."

  validation {
    condition     = can(regex("^arn:aws:", var.alerts_topic_arn))
    error_message = "The ARN of an SNS topic."
  }
}
