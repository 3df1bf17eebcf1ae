# Zone, certificate, firewall that counts first, log bucket; DNSSEC where asked for.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "aws" {
  alias           = "us_east_1"
  source          = "../../tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_acm_certificate.this
  override_during = plan
  values = {
    arn = "arn:aws:acm:us-east-1:111122223333:certificate/mock"
    domain_validation_options = [
      { domain_name = "example.com", resource_record_name = "_a.example.com.", resource_record_type = "CNAME", resource_record_value = "_a.acm-validations.aws." },
      { domain_name = "api.example.com", resource_record_name = "_b.example.com.", resource_record_type = "CNAME", resource_record_value = "_b.acm-validations.aws." },
    ]
  }
}

variables {
  name               = "orders-test"
  account_id         = "111122223333"
  region             = "us-east-1"
  domain_name        = "example.com"
  host_labels        = ["api"]
  delegated          = true
  dnssec             = true
  waf_blocks         = false
  logs_kms_key_arn   = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days = 90
}

run "names" {
  command = plan

  assert {
    condition     = join(",", keys(aws_route53_record.validation)) == "api.example.com,example.com"
    error_message = "one record a name, with static keys"
  }

  assert {
    condition     = aws_route53_record.validation["api.example.com"].name == "_b.example.com."
    error_message = "each name has its own record"
  }

  assert {
    condition     = length(aws_acm_certificate_validation.this) == 1 && length(aws_route53_record.alias) == 0
    error_message = "waits for the certificate; no alias without a load balancer"
  }

  assert {
    condition     = length(aws_route53_hosted_zone_dnssec.this) == 1 && length(aws_route53_query_log.this) == 1 && aws_kms_key.dnssec[0].customer_master_key_spec == "ECC_NIST_P256"
    error_message = "signed and logged"
  }
}

run "firewall_counts_first" {
  command = plan

  assert {
    condition     = length(aws_wafv2_web_acl.this.rule) == 5
    error_message = "four managed groups and a rate"
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].count) == 1 if startswith(rule.name, "AWSManagedRules") && rule.name != "AWSManagedRulesKnownBadInputsRuleSet"])
    error_message = "new rules count"
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].none) == 1 if rule.name == "AWSManagedRulesKnownBadInputsRuleSet"])
    error_message = "Log4Shell is blocked from the first day"
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : rule.statement[0].rate_based_statement[0].limit == 2000 && length(rule.action[0].count) == 1 if rule.name == "rate-per-address"])
    error_message = "2,000 requests in five minutes an address"
  }

  assert {
    condition     = length(aws_wafv2_web_acl_logging_configuration.this.redacted_fields) == 3 && startswith(aws_cloudwatch_log_group.waf.name, "aws-waf-logs-")
    error_message = "logged, without tokens"
  }
}

run "firewall_blocks_when_told" {
  command = plan

  variables {
    waf_blocks = true
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].none) == 1 if startswith(rule.name, "AWSManagedRules")]) && alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.action[0].block) == 1 if rule.name == "rate-per-address"])
    error_message = "every rule blocks"
  }
}

run "log_bucket" {
  command = plan

  assert {
    condition     = aws_s3_bucket_public_access_block.logs.block_public_policy && aws_s3_bucket_public_access_block.logs.restrict_public_buckets
    error_message = "not public"
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.logs.policy).Statement[1].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.logs.policy).Statement[1].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "TLS only"
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.logs.policy).Statement[0].Principal.Service == "logdelivery.elasticloadbalancing.amazonaws.com"
    error_message = "load balancers write"
  }
}

run "plain_zone" {
  command = plan

  variables {
    dnssec    = false
    delegated = false
  }

  assert {
    condition     = length(aws_kms_key.dnssec) == 0 && length(aws_acm_certificate_validation.this) == 0
    error_message = "no DNSSEC, no waiting"
  }
}

run "refuses_a_wrong_load_balancer" {
  command = plan

  variables {
    load_balancer = { dns_name = "example.com", zone_id = "Z1", arn_suffix = "app/x/1" }
  }

  expect_failures = [var.load_balancer]
}
