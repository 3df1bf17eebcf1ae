# Optional: a Lambda function that hands each message to a webhook. One way of consuming; a service of another team
# can read the queue itself. Why the service's own groups are no functions: docs/adr/0403.

locals {
  functions     = var.consumer == null ? {} : { consumer = var.consumer }
  function_name = "${var.name}-notifications"
  # Ten messages of three seconds each, and a rest to answer in.
  function_timeout_s = 40
}

resource "aws_cloudwatch_log_group" "consumer" {
  for_each = local.functions

  name              = "/aws/lambda/${local.function_name}"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_iam_role" "consumer" {
  for_each = local.functions

  name                 = "${local.function_name}-consumer"
  permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "consumer" {
  for_each = local.functions

  name = "consume"
  role = aws_iam_role.consumer[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], Resource = [aws_sqs_queue.this.arn] },
      { Effect = "Allow", Action = ["sqs:SendMessage"], Resource = [aws_sqs_queue.dead.arn] },
      { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.kms_key_arn] },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.consumer[each.key].arn}:*"]
      },
    ]
  })
}

# Interfaces in the subnets and traces have no name before they exist: AWS' own policies for just that.
resource "aws_iam_role_policy_attachment" "consumer" {
  for_each = var.consumer == null ? toset([]) : toset(["service-role/AWSLambdaVPCAccessExecutionRole", "AWSXRayDaemonWriteAccess"])

  role       = aws_iam_role.consumer["consumer"].name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

resource "aws_security_group" "consumer" {
  for_each = local.functions

  name        = "${local.function_name}-consumer"
  description = "The notification consumer: out to TLS, in from nobody."
  vpc_id      = each.value.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "consumer" {
  for_each = local.functions

  security_group_id = aws_security_group.consumer[each.key].id
  description       = "The webhook, and AWS' own endpoints."
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_lambda_code_signing_config" "consumer" {
  for_each = local.functions

  description = "Only packages that the pipeline has signed."

  allowed_publishers {
    signing_profile_version_arns = each.value.signing_profile_version_arns
  }

  policies {
    untrusted_artifact_on_deployment = "Enforce"
  }
}

resource "aws_lambda_function" "consumer" {
  for_each = local.functions

  function_name    = local.function_name
  description      = "Hands notifications to the webhook."
  role             = aws_iam_role.consumer[each.key].arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "handler.handle"
  filename         = each.value.package
  source_code_hash = filebase64sha256(each.value.package)
  memory_size      = 256
  timeout          = local.function_timeout_s
  kms_key_arn      = var.kms_key_arn
  # No more calls at once than the webhook may get; the rest waits in the queue.
  reserved_concurrent_executions = each.value.max_concurrency
  code_signing_config_arn        = aws_lambda_code_signing_config.consumer[each.key].arn

  vpc_config {
    subnet_ids         = each.value.subnet_ids
    security_group_ids = [aws_security_group.consumer[each.key].id]
  }

  # For a call that did not come from the queue; what came from it goes there by the queue's own redrive.
  dead_letter_config {
    target_arn = aws_sqs_queue.dead.arn
  }

  tracing_config {
    mode = "Active"
  }

  environment {
    variables = { WEBHOOK_URL = each.value.webhook_url }
  }

  lifecycle {
    precondition {
      condition     = var.visibility_timeout_s >= 6 * local.function_timeout_s
      error_message = "visibility_timeout_s must be at least 240: six calls of the function, else a message is handed out while it is being handled."
    }
  }

  depends_on = [aws_cloudwatch_log_group.consumer, aws_iam_role_policy.consumer, aws_iam_role_policy_attachment.consumer]
}

resource "aws_lambda_event_source_mapping" "consumer" {
  for_each = local.functions

  event_source_arn = aws_sqs_queue.this.arn
  function_name    = aws_lambda_function.consumer[each.key].arn
  batch_size       = 10
  # Only what failed is received again, not the whole batch.
  function_response_types = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = each.value.max_concurrency
  }
}

resource "aws_cloudwatch_metric_alarm" "consumer" {
  for_each = local.functions

  alarm_name          = "${local.function_name}-consumer-errors"
  alarm_description   = "The consumer ended without an answer: read its log group; the messages come again."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.consumer[each.key].function_name }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alerts_topic_arn]
}
