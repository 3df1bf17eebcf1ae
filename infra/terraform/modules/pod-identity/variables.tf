variable "name" {
  type        = string
  description = "Prefix of every name, as `orders-prod`."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 3 to 31 characters: orders-prod."
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

variable "namespace" {
  type        = string
  description = "Namespace of the release."
  default     = "orders"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*$", var.namespace))
    error_message = "A Kubernetes namespace name."
  }
}

variable "release" {
  type        = string
  description = "Helm release: prefix of the service accounts."
  default     = "orders"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*$", var.release))
    error_message = "A Helm release name."
  }
}

variable "cluster_name" {
  type        = string
  description = "EKS cluster."

  validation {
    condition     = length(var.cluster_name) > 0
    error_message = "The name of an EKS cluster."
  }
}

variable "cluster_arn" {
  type        = string
  description = "ARN of the EKS cluster; only it may hand out these roles."

  validation {
    condition     = can(regex("^arn:aws:", var.cluster_arn))
    error_message = "The ARN of an EKS cluster."
  }
}

variable "vpc_arn" {
  type        = string
  description = "VPC in which the load balancer controller makes security groups."

  validation {
    condition     = can(regex("^arn:aws:", var.vpc_arn))
    error_message = "The ARN of a VPC."
  }
}

variable "database_resource_id" {
  type        = string
  description = "Aurora cluster resource id (cluster-…), part of rds-db:connect."

  validation {
    condition     = length(var.database_resource_id) > 0
    error_message = "The resource id of the cluster, not its name."
  }
}

variable "cache_arn" {
  type        = string
  description = "ElastiCache replication group."

  validation {
    condition     = can(regex("^arn:aws:", var.cache_arn))
    error_message = "The ARN of a replication group."
  }
}

variable "kafka_cluster_arn" {
  type        = string
  description = "MSK cluster; topic and group ARNs are built from it."

  validation {
    condition     = can(regex(":cluster/", var.kafka_cluster_arn))
    error_message = "The ARN of an MSK cluster: arn:aws:kafka:…:cluster/<name>/<uuid>."
  }
}

variable "topics" {
  type        = list(string)
  description = "Topics of the service. Retry and dead-letter topics follow from them and the groups."
  default     = ["orders.events.v1", "catalog.events.v1"]

  validation {
    condition     = length(var.topics) > 0
    error_message = "At least one topic."
  }
}

variable "consumer_groups" {
  type        = list(string)
  description = "Consumer groups of the service."
  default     = ["inventory", "payments", "notifications", "timeline", "cache"]

  validation {
    condition     = length(var.consumer_groups) > 0
    error_message = "At least one group."
  }
}

variable "secret_arns" {
  type        = list(string)
  description = "Secrets that External Secrets may read."

  validation {
    condition     = alltrue([for arn in var.secret_arns : startswith(arn, "arn:aws:secretsmanager:")])
    error_message = "ARNs of Secrets Manager secrets."
  }
}

variable "data_kms_key_arn" {
  type        = string
  description = "Key those secrets are encrypted with."

  validation {
    condition     = can(regex("^arn:aws:", var.data_kms_key_arn))
    error_message = "The ARN of a KMS key."
  }
}

variable "certificate_arns" {
  type        = list(string)
  description = "Certificates the load balancer may use."

  validation {
    condition     = length(var.certificate_arns) > 0
    error_message = "At least one certificate."
  }
}

variable "web_acl_arns" {
  type        = list(string)
  description = "Firewalls the load balancer may use."

  validation {
    condition     = length(var.web_acl_arns) > 0
    error_message = "At least one web ACL."
  }
}

variable "associate" {
  type        = bool
  description = "Associate roles with service accounts; off only where Pod Identity itself is missing (tests against a fake AWS)."
  default     = true

  validation {
    condition     = var.associate != null
    error_message = "true or false."
  }
}
