# What all environments share is tested once, in envs/prod.
# The values of staging, read back from the planned resources. A changed tfvars line must be changed here too, on purpose.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "aws" {
  alias           = "us_east_1"
  source          = "../../tests/mocks"
  override_during = plan
}

# The names that the certificate is validated by; keys in the configuration are static, values come from AWS.
override_resource {
  target          = module.environment.module.edge.aws_acm_certificate.this
  override_during = plan
  values = {
    arn = "arn:aws:acm:us-east-1:111122223333:certificate/mock"
    domain_validation_options = [
      { domain_name = "staging.orders.example.com", resource_record_name = "_a.staging.orders.example.com.", resource_record_type = "CNAME", resource_record_value = "_a.acm-validations.aws." },
      { domain_name = "api.staging.orders.example.com", resource_record_name = "_b.staging.orders.example.com.", resource_record_type = "CNAME", resource_record_value = "_b.acm-validations.aws." },
    ]
  }
}

run "values" {
  command         = plan
  expect_failures = [check.certificate_is_usable, check.names_point_somewhere]

  assert {
    condition     = output.posture.nat_gateways == 1
    error_message = "staging has 1 NAT gateway(s)"
  }
  assert {
    condition     = length(output.posture.endpoints) == 7
    error_message = "staging has 7 interface endpoints"
  }
  assert {
    condition     = output.posture.log_days == 90
    error_message = "logs of staging are kept 90 days"
  }

  assert {
    condition     = output.posture.cluster.public_api == false
    error_message = "public API server of staging: false"
  }
  assert {
    condition     = jsonencode(output.posture.cluster.workload_nodes) == jsonencode([2, 6])
    error_message = "workload nodes of staging: [2, 6]"
  }
  assert {
    condition     = output.posture.cluster.version == "1.35"
    error_message = "the version the chart is validated for"
  }

  assert {
    condition     = output.posture.database.encrypted && output.posture.cache.encrypted && output.posture.kafka.in_transit == "TLS" && output.posture.kafka.iam_only
    error_message = "everything that keeps data is encrypted and Kafka takes IAM logins only"
  }
  assert {
    condition     = output.posture.database.instances == 2 && jsonencode(output.posture.database.acu) == jsonencode([0.5, 4])
    error_message = "2 Aurora instance(s) of [0.5, 4] ACU"
  }
  assert {
    condition     = output.posture.database.backup_days == 7 && output.posture.database.deletion_protection == true
    error_message = "7 day(s) of backups, deletion protection true"
  }
  assert {
    condition     = output.posture.database.backup_vault == false
    error_message = "the second copy of the backups belongs to prod"
  }
  assert {
    condition     = output.posture.cache.node_type == "cache.t4g.small" && output.posture.cache.nodes == 2 && output.posture.cache.multi_az == true && output.posture.cache.snapshot_days == 1
    error_message = "2 × cache.t4g.small, multi-AZ true, snapshots 1 day(s)"
  }
  assert {
    condition     = output.posture.kafka.brokers == 3 && output.posture.kafka.broker_type == "kafka.m7g.large"
    error_message = "3 × kafka.m7g.large"
  }

  assert {
    condition     = output.posture.edge.dnssec == false && !output.posture.edge.waf_blocks
    error_message = "DNSSEC false; firewall rules count first"
  }
  assert {
    condition     = output.posture.registry == 0
    error_message = "one image registry, in prod"
  }
  assert {
    condition     = length(output.posture.alarms) == 12
    error_message = "7 fixed alarms, 2 a cache node, 1 a NAT gateway: 12"
  }
  assert {
    condition     = length(output.posture.roles) == 7
    error_message = "one role a service account"
  }
}
