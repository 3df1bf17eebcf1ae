# An alarm for everything Prometheus cannot see; each reaches people and ends.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                     = "orders-test"
  region                   = "us-east-1"
  alerts_topic_arn         = "arn:aws:sns:us-east-1:111122223333:mock"
  database_cluster_id      = "orders-test"
  kafka_cluster_name       = "orders-test"
  web_acl_name             = "orders-test"
  cache_nodes              = ["orders-test-001", "orders-test-002"]
  nat_gateway_ids          = { a = "nat-1" }
  load_balancer_arn_suffix = "app/x/1"
}

run "alarms" {
  command = plan

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this) == 7 + 4 + 1 + 1
    error_message = "fixed, cache, NAT, load balancer"
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : contains(alarm.alarm_actions, "arn:aws:sns:us-east-1:111122223333:mock") && contains(alarm.ok_actions, "arn:aws:sns:us-east-1:111122223333:mock") && length(alarm.alarm_description) > 30])
    error_message = "heard, ended, explained"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["kafka-offline-partitions"].threshold == 0 && aws_cloudwatch_metric_alarm.this["kafka-offline-partitions"].treat_missing_data == "breaching"
    error_message = "a silent Kafka is an alarm"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["waf-blocks"].treat_missing_data == "notBreaching"
    error_message = "no attack is not an alarm"
  }

  assert {
    condition     = toset([for alarm in values(aws_cloudwatch_metric_alarm.this) : alarm.namespace]) == toset(["AWS/RDS", "AWS/Kafka", "AWS/WAFV2", "AWS/ElastiCache", "AWS/NATGateway", "AWS/ApplicationELB"])
    error_message = "every part"
  }
}

run "before_the_first_deployment" {
  command = plan

  variables {
    load_balancer_arn_suffix = null
  }

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "alb-5xx")
    error_message = "no load balancer, no alarm on it"
  }
}
