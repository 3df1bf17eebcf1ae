# Empty containers for the secrets the chart reads (External Secrets). Values are put in by an operator,
# never by Terraform, so no secret enters the state. Tests: tests/secrets.tftest.hcl.

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:logins are IAM tokens of 15 minutes; what is stored here are addresses and user names, nothing to rotate
  for_each = var.secrets

  name                    = each.key
  description             = each.value
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_window_days
}

resource "aws_secretsmanager_secret_policy" "this" {
  for_each = var.secrets

  secret_arn          = aws_secretsmanager_secret.this[each.key].arn
  block_public_policy = true
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyThisAccount"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "secretsmanager:*"
      Resource  = "*"
      Condition = { StringNotEquals = { "aws:PrincipalAccount" = var.account_id } }
    }]
  })
}
