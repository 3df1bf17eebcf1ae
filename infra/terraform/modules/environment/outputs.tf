output "chart_values" {
  description = "Values for the chart: deploy/helm/orders/values-<env>.yaml."
  value = {
    albSubnetCidrs   = module.network.public_cidrs
    databaseCidrs    = module.network.data_cidrs
    vpcEndpointCidrs = module.network.private_cidrs
    certificateArn   = module.edge.certificate_arn
    wafAclArn        = module.edge.web_acl_arn
    accessLogsBucket = module.edge.access_logs_bucket
    bootstrapServers = module.msk.bootstrap_brokers
    databaseEndpoint = module.aurora.endpoint
    cacheEndpoint    = module.elasticache.endpoint
    imageRepository  = one(module.ecr[*].repository_url)
    serviceAccounts  = module.pod_identity.service_accounts
  }
}

output "name_servers" {
  description = "To be set at the parent domain."
  value       = module.edge.name_servers
}

output "nat_addresses" {
  description = "Public addresses of outgoing requests."
  value       = module.network.nat_addresses
}

output "guarded" {
  description = "Identities that must never be replaced (envs/prod refuses a plan that would)."
  value = {
    database = module.aurora.cluster_resource_id
    data_key = module.kms.key_arns["data"]
  }
}

output "posture" {
  description = "What was configured, for the tests."
  value = {
    nat_gateways = length(module.network.nat_gateway_ids)
    endpoints    = module.network.endpoint_services
    cluster      = module.eks.posture
    database     = module.aurora.posture
    cache        = module.elasticache.posture
    kafka        = module.msk.posture
    edge         = module.edge.posture
    registry     = length(module.ecr)
    alarms       = module.observability.alarm_names
    roles        = keys(module.pod_identity.role_arns)
    log_days     = var.log_retention_days
  }
}
