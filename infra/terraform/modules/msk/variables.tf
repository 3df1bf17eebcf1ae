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

variable "kafka_version" {
  type        = string
  description = "Kafka version, KRaft."
  default     = "3.9.x.kraft"

  validation {
    condition     = can(regex("^(3\\.9|4\\.[0-9])\\.x(\\.kraft)?$", var.kafka_version))
    error_message = "3.9.x.kraft or 4.x."
  }
}

variable "broker_type" {
  type        = string
  description = "Broker type."

  validation {
    condition     = can(regex("^kafka\\.", var.broker_type))
    error_message = "A broker type: kafka.m7g.large."
  }
}

variable "volume_gib" {
  type        = number
  description = "First disk of a broker; it grows, never shrinks."

  validation {
    condition     = var.volume_gib >= 10
    error_message = "At least 10 GiB."
  }
}

variable "volume_max_gib" {
  type        = number
  description = "Disks stop growing here."

  validation {
    condition     = var.volume_max_gib <= 16384
    error_message = "At most 16,384 GiB."
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
