output "cluster_arn" {
  description = "ARN; topic and group ARNs are built from it."
  value       = aws_msk_cluster.this.arn
}

output "bootstrap_brokers" {
  description = "KAFKA_BOOTSTRAP, IAM listener (9098)."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_iam
}

output "posture" {
  description = "What was configured, read back for the environments' tests."
  value = {
    brokers     = aws_msk_cluster.this.number_of_broker_nodes
    broker_type = aws_msk_cluster.this.broker_node_group_info[0].instance_type
    in_transit  = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].client_broker
    iam_only    = aws_msk_cluster.this.client_authentication[0].sasl[0].iam && !aws_msk_cluster.this.client_authentication[0].unauthenticated
  }
}
