variable "account_id" {
  type        = string
  description = "AWS account, 12 digits."

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "Twelve digits, as printed by `aws sts get-caller-identity`."
  }
}

variable "secrets" {
  type        = map(string)
  description = "Name to description. The names are those of the chart (secrets.external.appKey, migrateKey)."

  validation {
    condition     = length(var.secrets) > 0
    error_message = "At least one secret."
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

variable "recovery_window_days" {
  type        = number
  description = "Days in which a deleted secret can come back."

  validation {
    condition     = var.recovery_window_days >= 7 && var.recovery_window_days <= 30
    error_message = "7 to 30."
  }
}
