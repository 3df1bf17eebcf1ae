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

variable "region" {
  type        = string
  description = "AWS region."

  validation {
    condition     = can(regex("^[a-z]{2}-[a-z]+-[0-9]$", var.region))
    error_message = "A region name such as us-east-1."
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

variable "owner" {
  type        = string
  description = "Tag: the team that answers."

  validation {
    condition     = length(var.owner) > 0
    error_message = "A team."
  }
}

variable "cost_center" {
  type        = string
  description = "Tag: who pays."

  validation {
    condition     = length(var.cost_center) > 0
    error_message = "A cost centre."
  }
}

variable "holds_image_registry" {
  type        = bool
  description = "This account holds the image registry (prod): make the gha-image role."
  default     = false

  validation {
    condition     = var.holds_image_registry != null
    error_message = "true or false."
  }
}

variable "create_autoscaling_role" {
  type        = bool
  description = "false where the account already has AWSServiceRoleForAutoScaling."
  default     = true

  validation {
    condition     = var.create_autoscaling_role != null
    error_message = "true or false."
  }
}
