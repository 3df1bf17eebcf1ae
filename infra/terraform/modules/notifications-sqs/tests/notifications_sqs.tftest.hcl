# Encrypted queues, only the topic sends, what fails is parked and heard.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name             = "orders-test"
  kms_key_arn      = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  alerts_topic_arn = "arn:aws:sns:us-east-1:111122223333:mock"
}

run "queues" {
  command = plan

  assert {
    condition     = aws_sqs_queue.this.kms_master_key_id != null && aws_sqs_queue.dead.kms_master_key_id != null && aws_sns_topic.this.kms_master_key_id != null
    error_message = "encrypted"
  }

  assert {
    condition     = jsondecode(aws_sqs_queue.this.redrive_policy).maxReceiveCount == 5
    error_message = "parked after five tries"
  }

  assert {
    condition     = aws_sqs_queue.dead.message_retention_seconds == 1209600
    error_message = "14 days to look at it"
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_policy.this.policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == aws_sns_topic.this.arn
    error_message = "only the topic sends"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.dead.threshold == 0
    error_message = "one parked message is an alarm"
  }
}

run "refuses_one_try" {
  command = plan

  variables {
    max_receives = 1
  }

  expect_failures = [var.max_receives]
}

run "no_function_unless_asked_for" {
  command = plan

  assert {
    condition     = length(aws_lambda_function.consumer) == 0 && length(aws_iam_role.consumer) == 0
    error_message = "the queue alone"
  }
}

run "consumer" {
  command = plan

  variables {
    visibility_timeout_s = 240

    consumer = {
      package                      = "consumer/handler.py"
      signing_profile_version_arns = ["arn:aws:signer:us-east-1:111122223333:/signing-profiles/mock/0"]
      vpc_id                       = "vpc-0"
      subnet_ids                   = ["subnet-0", "subnet-1"]
      webhook_url                  = "https://example.com/notify"
    }
  }

  assert {
    condition     = aws_lambda_event_source_mapping.consumer["consumer"].function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "only what failed comes again"
  }

  assert {
    condition     = aws_lambda_function.consumer["consumer"].reserved_concurrent_executions == 5 && aws_lambda_event_source_mapping.consumer["consumer"].scaling_config[0].maximum_concurrency == 5
    error_message = "the webhook is not overrun"
  }

  assert {
    condition     = toset(jsondecode(aws_iam_role_policy.consumer["consumer"].policy).Statement[0].Action) == toset(["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"])
    error_message = "it may consume, not send"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.consumer["consumer"].policy).Statement : !contains(statement.Resource, "*")])
    error_message = "named resources only"
  }

  assert {
    condition     = aws_lambda_function.consumer["consumer"].kms_key_arn == var.kms_key_arn && aws_cloudwatch_log_group.consumer["consumer"].kms_key_id == var.kms_key_arn
    error_message = "encrypted"
  }

  assert {
    condition     = aws_lambda_code_signing_config.consumer["consumer"].policies[0].untrusted_artifact_on_deployment == "Enforce"
    error_message = "unsigned code is refused"
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.consumer["consumer"].from_port == 443 && aws_vpc_security_group_egress_rule.consumer["consumer"].to_port == 443
    error_message = "out to TLS only"
  }
}

run "refuses_a_visibility_shorter_than_six_calls" {
  command = plan

  variables {
    consumer = {
      package                      = "consumer/handler.py"
      signing_profile_version_arns = ["arn:aws:signer:us-east-1:111122223333:/signing-profiles/mock/0"]
      vpc_id                       = "vpc-0"
      subnet_ids                   = ["subnet-0", "subnet-1"]
      webhook_url                  = "https://example.com/notify"
    }
  }

  expect_failures = [aws_lambda_function.consumer]
}

run "refuses_a_webhook_without_tls" {
  command = plan

  variables {
    visibility_timeout_s = 240

    consumer = {
      package                      = "consumer/handler.py"
      signing_profile_version_arns = ["arn:aws:signer:us-east-1:111122223333:/signing-profiles/mock/0"]
      vpc_id                       = "vpc-0"
      subnet_ids                   = ["subnet-0", "subnet-1"]
      webhook_url                  = "http://example.com/notify"
    }
  }

  expect_failures = [var.consumer]
}
