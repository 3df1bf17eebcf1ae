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

variable "delegated" {
  type        = bool
  description = "The parent domain points to this zone: wait for the certificate."

  validation {
    condition     = var.delegated != null
    error_message = "true or false."
  }
}

variable "dnssec" {
  type        = bool
  description = "Sign the zone and log its queries (prod). The parent needs the DS record of output `ds_record`."

  validation {
    condition     = var.dnssec != null
    error_message = "true or false."
  }
}

variable "waf_blocks" {
  type        = bool
  description = "false: new rules only count. true: they block."

  validation {
    condition     = var.waf_blocks != null
    error_message = "true or false."
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
