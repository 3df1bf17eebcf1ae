# The public face: zone, certificate, firewall, bucket for the load balancer's access logs. The load balancer itself is
# made by the controller from the chart's Ingress. Tests: tests/edge.tftest.hcl.

locals {
  certificate_names = toset(concat([var.domain_name], [for host in var.host_labels : "${host}.${var.domain_name}"]))
}

resource "aws_route53_zone" "this" {
  name    = var.domain_name
  comment = "Public names of ${var.name}"
}

resource "aws_acm_certificate" "this" {
  domain_name               = var.domain_name
  subject_alternative_names = [for host in var.host_labels : "${host}.${var.domain_name}"]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  # Static keys: keys taken from domain_validation_options are unknown at the first plan.
  for_each = local.certificate_names

  zone_id         = aws_route53_zone.this.zone_id
  name            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_value if option.domain_name == each.key])]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  # Waits for ever while the parent domain does not delegate to this zone: switched on after the delegation.
  count = var.delegated ? 1 : 0

  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in values(aws_route53_record.validation) : record.fqdn]
}

resource "aws_route53_record" "alias" {
  for_each = var.load_balancer == null ? toset([]) : toset(var.host_labels)

  zone_id = aws_route53_zone.this.zone_id
  name    = "${each.key}.${var.domain_name}"
  type    = "A"

  alias {
    name                   = var.load_balancer.dns_name
    zone_id                = var.load_balancer.zone_id
    evaluate_target_health = true
  }
}
