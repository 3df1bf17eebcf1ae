# Encrypted, IAM logins, TLS only, backups, logs, failover events to people.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                      = "orders-test"
  account_id                = "111122223333"
  vpc_id                    = "vpc-0"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  client_security_group_ids = { cluster = "sg-1" }
  min_acu                   = 2
  max_acu                   = 32
  instance_count            = 3
  backup_retention_days     = 35
  backup_vault              = true
  deletion_protection       = true
  kms_key_arn               = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  logs_kms_key_arn          = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days        = 90
  alerts_topic_arn          = "arn:aws:sns:us-east-1:111122223333:mock"
}

run "cluster" {
  command = plan

  assert {
    condition     = aws_rds_cluster.this.storage_encrypted && aws_rds_cluster.this.kms_key_id != null
    error_message = "encrypted with our key"
  }

  assert {
    condition     = aws_rds_cluster.this.manage_master_user_password && aws_rds_cluster.this.iam_database_authentication_enabled
    error_message = "no password in state; IAM logins"
  }

  assert {
    condition     = aws_rds_cluster.this.backup_retention_period == 35 && aws_rds_cluster.this.deletion_protection && !aws_rds_cluster.this.skip_final_snapshot
    error_message = "backups, protected, a last snapshot"
  }

  assert {
    condition     = contains(aws_rds_cluster.this.enabled_cloudwatch_logs_exports, "postgresql")
    error_message = "logs are exported"
  }

  assert {
    condition     = startswith(aws_rds_cluster.this.engine_version, "17.")
    error_message = "PostgreSQL 17"
  }

  assert {
    condition     = aws_backup_plan.this[0].rule != null && length(aws_backup_selection.this) == 1
    error_message = "a second copy"
  }
}

run "server_settings" {
  command = plan

  assert {
    condition     = one([for parameter in aws_rds_cluster_parameter_group.this.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
    error_message = "TLS only"
  }

  assert {
    condition     = one([for parameter in aws_rds_cluster_parameter_group.this.parameter : parameter.value if parameter.name == "log_min_duration_statement"]) == "500" && one([for parameter in aws_rds_cluster_parameter_group.this.parameter : parameter.value if parameter.name == "log_lock_waits"]) == "1"
    error_message = "slow statements and lock waits are logged"
  }

  assert {
    condition     = one([for parameter in aws_rds_cluster_parameter_group.this.parameter : parameter.value if parameter.name == "deadlock_timeout"]) == "200" && one([for parameter in aws_rds_cluster_parameter_group.this.parameter : parameter.value if parameter.name == "idle_in_transaction_session_timeout"]) == "30000"
    error_message = "deadlocks found in 200 ms, abandoned transactions ended"
  }
}

run "instances" {
  command = plan

  assert {
    condition     = length(aws_rds_cluster_instance.this) == 3 && alltrue([for instance in values(aws_rds_cluster_instance.this) : !instance.publicly_accessible && instance.performance_insights_enabled && instance.monitoring_interval == 60])
    error_message = "private, observed"
  }

  assert {
    condition     = aws_rds_cluster_instance.this["b"].promotion_tier == 0 && aws_rds_cluster_instance.this["c"].promotion_tier == 2
    error_message = "the standby follows the writer's size"
  }

  assert {
    condition     = contains(aws_db_event_subscription.this.event_categories, "failover")
    error_message = "a failover is heard"
  }

  assert {
    condition     = one(values(aws_vpc_security_group_ingress_rule.this)).from_port == 5432 && one(values(aws_vpc_security_group_ingress_rule.this)).to_port == 5432 && one(values(aws_vpc_security_group_ingress_rule.this)).cidr_ipv4 == null
    error_message = "5432, from groups only"
  }
}

run "refuses_no_backups" {
  command = plan

  variables {
    backup_retention_days = 0
  }

  expect_failures = [var.backup_retention_days]
}

run "refuses_other_engines" {
  command = plan

  variables {
    engine_version = "16.4"
  }

  expect_failures = [var.engine_version]
}
