variable "name" {
  type        = string
  description = "Prefix of every name, as `orders-prod`."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 3 to 31 characters: orders-prod."
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

variable "alerts_topic_arn" {
  type        = string
  description = "SNS topic that people listen to."

  validation {
    condition     = can(regex("^arn:aws:", var.alerts_topic_arn))
    error_message = "The ARN of an SNS topic."
  }
}

variable "database_cluster_id" {
  type        = string
  description = "Aurora cluster."

  validation {
    condition     = length(var.database_cluster_id) > 0
    error_message = "The identifier of a cluster."
  }
}

variable "kafka_cluster_name" {
  type        = string
  description = "MSK cluster."

  validation {
    condition     = length(var.kafka_cluster_name) > 0
    error_message = "The name of a cluster."
  }
}

variable "web_acl_name" {
  type        = string
  description = "Web ACL."

  validation {
    condition     = length(var.web_acl_name) > 0
    error_message = "The name of a web ACL."
  }
}

variable "cache_nodes" {
  type        = list(string)
  description = "ElastiCache node ids (<group>-001 …)."

  validation {
    condition     = length(var.cache_nodes) > 0
    error_message = "At least one node."
  }
}

variable "nat_gateway_ids" {
  type        = map(string)
  description = "Zone key to NAT gateway."

  validation {
    condition     = length(var.nat_gateway_ids) > 0
    error_message = "At least one NAT gateway."
  }
}

variable "load_balancer_arn_suffix" {
  type        = string
  description = "app/<name>/<id> of the load balancer; null before the first deployment."
  default     = null

  validation {
    condition     = var.load_balancer_arn_suffix == null ? true : startswith(var.load_balancer_arn_suffix, "app/")
    error_message = "The part of the ARN from app/ on."
  }
}
