variable "name" {
  type        = string
  description = "Prefix of every name, as `orders-prod`."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 3 to 31 characters: orders-prod."
  }
}

variable "environment" {
  type        = string
  description = "Environment of this account; also the name of the GitHub environment."

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "dev, staging or prod."
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

variable "repository" {
  type        = string
  description = "GitHub repository, owner/name."

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.repository))
    error_message = "owner/name, without wildcards."
  }
}

variable "state_bucket_arn" {
  type        = string
  description = "Bucket of the Terraform state."

  validation {
    condition     = startswith(var.state_bucket_arn, "arn:aws:s3:::")
    error_message = "The ARN of a bucket."
  }
}

variable "state_kms_key_arn" {
  type        = string
  description = "Key of that bucket."

  validation {
    condition     = can(regex("^arn:aws:", var.state_kms_key_arn))
    error_message = "The ARN of a KMS key."
  }
}

variable "image_repository_arn" {
  type        = string
  description = "ECR repository, where this account holds the registry; else null."
  default     = null

  validation {
    condition     = var.image_repository_arn == null ? true : startswith(var.image_repository_arn, "arn:aws:ecr:")
    error_message = "The ARN of an ECR repository."
  }
}
