output "endpoint" {
  description = "Writer."
  value       = aws_rds_cluster.this.endpoint
}

output "reader_endpoint" {
  description = "Readers."
  value       = aws_rds_cluster.this.reader_endpoint
}

output "cluster_resource_id" {
  description = "Part of rds-db:connect; changes when the cluster is replaced."
  value       = aws_rds_cluster.this.cluster_resource_id
}

output "owner_secret_arn" {
  description = "Secret with the owner's password, made and rotated by RDS."
  value       = one(aws_rds_cluster.this.master_user_secret[*].secret_arn)
}

output "posture" {
  description = "What was configured, read back for the environments' tests."
  value = {
    encrypted           = aws_rds_cluster.this.storage_encrypted
    deletion_protection = aws_rds_cluster.this.deletion_protection
    backup_days         = aws_rds_cluster.this.backup_retention_period
    backup_vault        = length(aws_backup_selection.this) == 1
    instances           = length(aws_rds_cluster_instance.this)
    acu                 = [aws_rds_cluster.this.serverlessv2_scaling_configuration[0].min_capacity, aws_rds_cluster.this.serverlessv2_scaling_configuration[0].max_capacity]
  }
}
