output "role_arns" {
  description = "Component to role ARN."
  value       = { for key, role in aws_iam_role.this : key => role.arn }
}

output "service_accounts" {
  description = "Component to namespace/name: what the chart must call its service accounts."
  value       = { for key, account in local.service_accounts : key => "${account.namespace}/${account.name}" }
}
