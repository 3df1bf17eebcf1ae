variable "name" {
  type        = string
  description = "Prefix of every name, as `orders-prod`."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 3 to 31 characters: orders-prod."
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

variable "alerts_topic_arn" {
  type        = string
  description = "SNS topic that people listen to."

  validation {
    condition     = can(regex("^arn:aws:", var.alerts_topic_arn))
    error_message = "The ARN of an SNS topic."
  }
}

variable "visibility_timeout_s" {
  type        = number
  description = "A consumer must finish within this, or the message is handed out again."
  default     = 60

  validation {
    condition     = var.visibility_timeout_s >= 30 && var.visibility_timeout_s <= 43200
    error_message = "30 to 43,200 seconds."
  }
}

variable "max_receives" {
  type        = number
  description = "Tries before a message is parked."
  default     = 5

  validation {
    condition     = var.max_receives >= 2 && var.max_receives <= 20
    error_message = "2 to 20."
  }
}

variable "consumer" {
  type = object({
    package                      = string
    signing_profile_version_arns = list(string)
    vpc_id                       = string
    subnet_ids                   = list(string)
    webhook_url                  = string
    max_concurrency              = optional(number, 5)
  })
  description = "A Lambda function that hands messages to a webhook: `package` is a signed zip of consumer/handler.py; null: none."
  default     = null

  validation {
    condition     = var.consumer == null ? true : startswith(var.consumer.webhook_url, "https://")
    error_message = "webhook_url must be https."
  }

  validation {
    condition     = var.consumer == null ? true : var.consumer.max_concurrency >= 2 && var.consumer.max_concurrency <= 100
    error_message = "max_concurrency: 2 (the least that AWS takes) to 100."
  }
}
