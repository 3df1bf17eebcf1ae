output "cluster_name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "cluster_arn" {
  description = "ARN of the cluster."
  value       = aws_eks_cluster.this.arn
}

output "cluster_endpoint" {
  description = "API server."
  value       = aws_eks_cluster.this.endpoint
}

output "cluster_security_group_id" {
  description = "Group of nodes and pods."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "posture" {
  description = "What was configured, read back for the environments' tests."
  value = {
    version        = aws_eks_cluster.this.version
    public_api     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    workload_nodes = [aws_eks_node_group.this["workload"].scaling_config[0].min_size, aws_eks_node_group.this["workload"].scaling_config[0].max_size]
  }
}
