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

variable "load_balancer_security_group_id" {
  type        = string
  description = "Group of the internal load balancer."

  validation {
    condition     = startswith(var.load_balancer_security_group_id, "sg-")
    error_message = "A security group id: sg-…"
  }
}

variable "listener_arn" {
  type        = string
  description = "HTTPS listener of the internal load balancer."

  validation {
    condition     = can(regex(":listener/", var.listener_arn))
    error_message = "The ARN of a listener."
  }
}

variable "server_name" {
  type        = string
  description = "Name in the load balancer's certificate."

  validation {
    condition     = length(var.server_name) > 0
    error_message = "A host name."
  }
}

variable "issuer" {
  type        = string
  description = "Token issuer, as APP_AUTH_ISSUER."

  validation {
    condition     = startswith(var.issuer, "https://")
    error_message = "An https URL."
  }
}

variable "audience" {
  type        = string
  description = "Audience, as APP_AUTH_AUDIENCE."
  default     = "plumbline"

  validation {
    condition     = length(var.audience) > 0
    error_message = "A word that tokens carry in `aud`."
  }
}

variable "requests_per_second" {
  type        = number
  description = "Steady rate of the whole API."
  default     = 500

  validation {
    condition     = var.requests_per_second > 0
    error_message = "More than 0."
  }
}

variable "burst" {
  type        = number
  description = "Requests admitted at once above the rate."
  default     = 1000

  validation {
    condition     = var.burst > 0
    error_message = "More than 0."
  }
}

variable "disable_default_endpoint" {
  type        = bool
  description = "Only the custom domain answers."
  default     = true

  validation {
    condition     = var.disable_default_endpoint != null
    error_message = "true or false."
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
