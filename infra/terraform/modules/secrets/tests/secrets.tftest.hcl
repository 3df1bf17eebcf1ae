# Encrypted containers without values, closed to other accounts.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  account_id           = "111122223333"
  kms_key_arn          = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  recovery_window_days = 30
  secrets              = { "orders/app" = "a", "orders/migrate" = "b" }
}

run "containers" {
  command = plan

  assert {
    condition     = join(",", keys(aws_secretsmanager_secret.this)) == "orders/app,orders/migrate"
    error_message = "the chart's two secrets"
  }

  assert {
    condition     = alltrue([for secret in values(aws_secretsmanager_secret.this) : secret.kms_key_id != null && secret.recovery_window_in_days == 30])
    error_message = "encrypted, recoverable"
  }

  assert {
    condition     = alltrue([for policy in values(aws_secretsmanager_secret_policy.this) : jsondecode(policy.policy).Statement[0].Effect == "Deny" && policy.block_public_policy])
    error_message = "closed to others"
  }
}

run "refuses_instant_deletion" {
  command = plan

  variables {
    recovery_window_days = 0
  }

  expect_failures = [var.recovery_window_days]
}
