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

variable "kubernetes_version" {
  type        = string
  description = "Minor version. The newest one the chart is validated for and EKS has in standard support."
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.3[3-9]$", var.kubernetes_version))
    error_message = "A minor version from 1.33 to 1.39."
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

variable "public_access_cidrs" {
  type        = list(string)
  description = "Who may reach the API server from the internet; empty: nobody, private endpoint only."
  default     = []

  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0") && alltrue([for cidr in var.public_access_cidrs : can(cidrhost(cidr, 0))])
    error_message = "CIDR blocks, never 0.0.0.0/0."
  }
}

variable "access" {
  type = map(object({
    principal_arn = string
    policy        = string
    namespaces    = list(string)
    groups        = list(string)
  }))
  description = "Who may use the cluster: IAM role, EKS access policy, namespaces (none: whole cluster), Kubernetes groups."

  validation {
    condition     = alltrue([for entry in values(var.access) : startswith(entry.principal_arn, "arn:aws:iam::") && startswith(entry.policy, "AmazonEKS")])
    error_message = "Each entry names an IAM principal and an AmazonEKS… access policy."
  }
}

variable "node_instance_type" {
  type        = string
  description = "Instance type of both node groups; Graviton."

  validation {
    condition     = can(regex("^[a-z]+[0-9]g[a-z]*\\.", var.node_instance_type))
    error_message = "A Graviton type (the image is arm64 too): m7g.large."
  }
}

variable "workload_nodes" {
  type = object({
    min = number
    max = number
  })
  description = "Size of the node group that runs the service."

  validation {
    condition     = var.workload_nodes.min >= 2 && var.workload_nodes.max >= var.workload_nodes.min
    error_message = "At least two nodes, and max not below min."
  }
}

variable "node_volume_gib" {
  type        = number
  description = "Disk of a node."
  default     = 50

  validation {
    condition     = var.node_volume_gib >= 20 && var.node_volume_gib <= 500
    error_message = "20 to 500 GiB."
  }
}

variable "addon_versions" {
  type        = map(string)
  description = "Pins of add-on versions; an add-on not named gets the default of the Kubernetes version."
  default     = {}

  validation {
    condition     = alltrue([for version in values(var.addon_versions) : startswith(version, "v")])
    error_message = "Versions such as v1.20.1-eksbuild.3."
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
