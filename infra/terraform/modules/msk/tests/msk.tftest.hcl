# Three brokers, IAM only, TLS both ways, no topic by accident, storage that grows.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                      = "orders-test"
  vpc_id                    = "vpc-0"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  client_security_group_ids = { cluster = "sg-1" }
  broker_type               = "kafka.m7g.large"
  volume_gib                = 100
  volume_max_gib            = 500
  kms_key_arn               = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  logs_kms_key_arn          = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days        = 90
}

run "cluster" {
  command = plan

  assert {
    condition     = aws_msk_cluster.this.number_of_broker_nodes == 3
    error_message = "a broker a zone"
  }

  assert {
    condition     = aws_msk_cluster.this.client_authentication[0].sasl[0].iam && !aws_msk_cluster.this.client_authentication[0].sasl[0].scram && !aws_msk_cluster.this.client_authentication[0].unauthenticated
    error_message = "IAM logins only"
  }

  assert {
    condition     = aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].client_broker == "TLS" && aws_msk_cluster.this.encryption_info[0].encryption_in_transit[0].in_cluster && aws_msk_cluster.this.encryption_info[0].encryption_at_rest_kms_key_arn != null
    error_message = "encrypted everywhere"
  }

  assert {
    condition     = aws_msk_cluster.this.broker_node_group_info[0].connectivity_info[0].public_access[0].type == "DISABLED"
    error_message = "no public brokers"
  }

  assert {
    condition     = aws_msk_cluster.this.enhanced_monitoring == "PER_TOPIC_PER_PARTITION" && aws_msk_cluster.this.open_monitoring[0].prometheus[0].jmx_exporter[0].enabled_in_broker
    error_message = "lag can be seen a partition"
  }

  assert {
    condition     = aws_msk_cluster.this.logging_info[0].broker_logs[0].cloudwatch_logs[0].enabled
    error_message = "broker logs"
  }
}

run "settings" {
  command = plan

  assert {
    condition     = alltrue([for line in ["auto.create.topics.enable=false", "min.insync.replicas=2", "default.replication.factor=3", "unclean.leader.election.enable=false"] : strcontains(aws_msk_configuration.this.server_properties, line)])
    error_message = "a broker may be away; nothing is lost, nothing made by accident"
  }

  assert {
    condition     = toset([for rule in values(aws_vpc_security_group_ingress_rule.this) : rule.from_port]) == toset([9098, 11001, 11002])
    error_message = "the IAM listener and the exporters"
  }

  assert {
    condition     = aws_appautoscaling_target.storage.max_capacity == 500 && aws_appautoscaling_policy.storage.target_tracking_scaling_policy_configuration[0].disable_scale_in
    error_message = "disks grow to the limit, never shrink"
  }
}

run "refuses_zookeeper_versions" {
  command = plan

  variables {
    kafka_version = "3.6.0"
  }

  expect_failures = [var.kafka_version]
}
