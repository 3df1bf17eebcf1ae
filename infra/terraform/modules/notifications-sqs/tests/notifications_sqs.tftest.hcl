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
