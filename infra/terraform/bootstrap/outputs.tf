output "backend" {
  description = "For envs/<env>/backend.hcl."
  value = {
    bucket       = aws_s3_bucket.state.id
    key          = "${var.environment}/terraform.tfstate"
    region       = var.region
    encrypt      = true
    kms_key_id   = aws_kms_alias.state.arn
    use_lockfile = true
  }
}

output "role_arns" {
  description = "For the workflows."
  value       = module.github_oidc.role_arns
}
