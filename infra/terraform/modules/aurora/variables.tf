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

variable "engine_version" {
  type        = string
  description = "Aurora PostgreSQL version."
  default     = "17.5"

  validation {
    condition     = can(regex("^17\\.[0-9]+$", var.engine_version))
    error_message = "A 17.x version that Aurora offers."
  }
}

variable "min_acu" {
  type        = number
  description = "Smallest capacity (1 ACU is about 2 GiB)."

  validation {
    condition     = var.min_acu >= 0.5 && var.min_acu <= 256
    error_message = "0.5 to 256."
  }
}

variable "max_acu" {
  type        = number
  description = "Largest capacity; also bounds max_connections."

  validation {
    condition     = var.max_acu >= 1 && var.max_acu <= 256
    error_message = "1 to 256."
  }
}

variable "instance_count" {
  type        = number
  description = "1 (no standby), 2 or 3."

  validation {
    condition     = contains([1, 2, 3], var.instance_count)
    error_message = "1, 2 or 3."
  }
}

variable "backup_retention_days" {
  type        = number
  description = "Days of point-in-time recovery."

  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 35
    error_message = "1 to 35."
  }
}

variable "backup_vault" {
  type        = bool
  description = "A second copy in AWS Backup, which the pipeline cannot delete."

  validation {
    condition     = var.backup_vault != null
    error_message = "true or false."
  }
}

variable "deletion_protection" {
  type        = bool
  description = "Refuse deletion, and keep a last snapshot."

  validation {
    condition     = var.deletion_protection != null
    error_message = "true or false."
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
