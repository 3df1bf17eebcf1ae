output "key_arns" {
  description = "Purpose (data, logs, alerts, cluster) to key ARN."
  value       = { for purpose, key in aws_kms_key.this : purpose => key.arn }
}
