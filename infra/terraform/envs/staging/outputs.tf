output "chart_values" {
  description = "Values for the chart: deploy/helm/orders/values-<env>.yaml."
  value       = module.environment.chart_values
}

output "name_servers" {
  description = "To be set at the parent domain."
  value       = module.environment.name_servers
}

output "nat_addresses" {
  description = "Public addresses of outgoing requests."
  value       = module.environment.nat_addresses
}

output "guarded" {
  description = "Identities that must never be replaced (envs/prod refuses a plan that would)."
  value       = module.environment.guarded
}

output "posture" {
  description = "What was configured, for the tests."
  value       = module.environment.posture
}
