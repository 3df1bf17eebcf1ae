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

variable "cidr" {
  type        = string
  description = "Address range of the VPC, a /16."

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "A /16 such as 10.20.0.0/16."
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

variable "log_retention_days" {
  type        = number
  description = "Days that logs are kept."

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400, 731], var.log_retention_days)
    error_message = "CloudWatch takes 7, 14, 30, 60, 90, 180, 365, 400 or 731 days."
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
