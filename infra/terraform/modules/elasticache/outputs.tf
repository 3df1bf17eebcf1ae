output "arn" {
  description = "ARN of the replication group (elasticache:Connect)."
  value       = aws_elasticache_replication_group.this.arn
}

output "endpoint" {
  description = "Primary, port 6379, TLS."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "posture" {
  description = "What was configured, read back for the environments' tests."
  value = {
    nodes         = aws_elasticache_replication_group.this.num_cache_clusters
    node_type     = aws_elasticache_replication_group.this.node_type
    multi_az      = aws_elasticache_replication_group.this.multi_az_enabled
    snapshot_days = aws_elasticache_replication_group.this.snapshot_retention_limit
    encrypted     = aws_elasticache_replication_group.this.at_rest_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_enabled
  }
}
