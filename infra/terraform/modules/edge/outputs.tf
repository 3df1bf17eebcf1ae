output "name_servers" {
  description = "To be set at the parent domain."
  value       = aws_route53_zone.this.name_servers
}

output "ds_record" {
  description = "To be set at the parent domain after the name servers (null without DNSSEC)."
  value       = one(aws_route53_key_signing_key.this[*].ds_record)
}

output "certificate_arn" {
  description = "For the chart: ingress.certificateArn."
  value       = aws_acm_certificate.this.arn
}

output "web_acl_arn" {
  description = "For the chart: ingress.wafAclArn."
  value       = aws_wafv2_web_acl.this.arn
}

output "access_logs_bucket" {
  description = "For the chart: ingress.accessLogsBucket."
  value       = aws_s3_bucket.logs.id
}

output "posture" {
  description = "What was configured, read back for the environments' tests."
  value = {
    dnssec     = length(aws_route53_hosted_zone_dnssec.this) == 1
    waf_blocks = var.waf_blocks
    hosts      = local.certificate_names
  }
}
