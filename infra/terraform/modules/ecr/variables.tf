variable "repository" {
  type        = string
  description = "Name of the repository."

  validation {
    condition     = can(regex("^[a-z][a-z0-9/_-]+$", var.repository))
    error_message = "Lower-case letters, digits, /, _ and -."
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

variable "keep_images" {
  type        = number
  description = "Newest images that stay."
  default     = 50

  validation {
    condition     = var.keep_images >= 10
    error_message = "At least 10, or a rollback may find nothing."
  }
}

variable "pull_account_ids" {
  type        = list(string)
  description = "Accounts of the other environments: they pull from here."
  default     = []

  validation {
    condition     = alltrue([for id in var.pull_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "Twelve-digit account ids."
  }
}
