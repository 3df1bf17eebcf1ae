# Four keys, each with its own policy; logs cannot open the database.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name       = "orders-test"
  account_id = "111122223333"
  region     = "us-east-1"
}

run "keys" {
  command = plan

  assert {
    condition     = join(",", keys(aws_kms_key.this)) == "alerts,cluster,data,logs"
    error_message = "one key a purpose"
  }

  assert {
    condition     = alltrue([for key in values(aws_kms_key.this) : key.enable_key_rotation && key.deletion_window_in_days == 30])
    error_message = "rotated, and 30 days to change one's mind"
  }

  assert {
    condition     = length(jsondecode(aws_kms_key.this["data"].policy).Statement) == 1
    error_message = "nobody but IAM of this account opens the data key"
  }

  assert {
    condition     = jsondecode(aws_kms_key.this["logs"].policy).Statement[1].Principal.Service == "logs.us-east-1.amazonaws.com"
    error_message = "CloudWatch Logs uses the log key"
  }

  assert {
    condition     = jsondecode(aws_kms_key.this["alerts"].policy).Statement[1].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "only this account's alarms"
  }

  assert {
    condition     = alltrue([for key in values(aws_kms_key.this) : alltrue([for statement in jsondecode(key.policy).Statement : statement.Principal != "*"])])
    error_message = "no key for everybody"
  }

  assert {
    condition     = jsondecode(aws_kms_key.this["cluster"].policy).Statement[2].Condition.Bool["kms:GrantIsForAWSResource"] == "true"
    error_message = "grants for volumes only"
  }
}
