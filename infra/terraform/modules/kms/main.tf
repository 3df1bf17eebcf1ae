# Customer-managed keys of one environment, one a purpose, so that a grant for logs never opens the database.
# A lost key is lost data: rotation on, longest deletion window. Tests: tests/kms.tftest.hcl.

locals {
  root_statement = {
    Sid       = "AccountDecidesByIAM"
    Effect    = "Allow"
    Principal = { AWS = "arn:aws:iam::${var.account_id}:root" }
    Action    = "kms:*"
    Resource  = "*"
  }

  use_actions = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]

  keys = {
    data = {
      description = "Aurora, ElastiCache, MSK, Secrets Manager, ECR"
      statements  = []
    }
    logs = {
      description = "CloudWatch log groups"
      statements = [{
        Sid       = "LogGroupsOfThisAccount"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = local.use_actions
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${var.region}:${var.account_id}:*" } }
      }]
    }
    alerts = {
      description = "Alert topics"
      statements = [{
        Sid       = "AlarmAndEventPublishers"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "events.rds.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      }]
    }
    cluster = {
      description = "Kubernetes secrets and node volumes"
      # Node groups are launched by the Auto Scaling role: without these two statements instances
      # with an encrypted volume end seconds after they start, and nothing says why.
      statements = [
        {
          Sid       = "AutoScalingUsesTheKey"
          Effect    = "Allow"
          Principal = { AWS = local.autoscaling_role_arn }
          Action    = local.use_actions
          Resource  = "*"
        },
        {
          Sid       = "AutoScalingGrantsItToVolumes"
          Effect    = "Allow"
          Principal = { AWS = local.autoscaling_role_arn }
          Action    = "kms:CreateGrant"
          Resource  = "*"
          Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
        },
      ]
    }
  }

  autoscaling_role_arn = "arn:aws:iam::${var.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
}

resource "aws_kms_key" "this" {
  for_each = local.keys

  description             = "${var.name}: ${each.value.description}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([local.root_statement], each.value.statements)
  })
}

resource "aws_kms_alias" "this" {
  for_each = local.keys

  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.this[each.key].key_id
}
