# State bucket: versioned, encrypted, private, TLS only; the pipeline's roles.

mock_provider "aws" {
  source          = "../tests/mocks"
  override_during = plan
}

variables {
  account_id           = "111122223333"
  region               = "us-east-1"
  environment          = "prod"
  repository           = "example/plumbline"
  owner                = "orders-team"
  cost_center          = "orders"
  holds_image_registry = true
}

run "state" {
  command = plan

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled"
    error_message = "the way back"
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.state.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "encrypted with our key"
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.state.block_public_acls && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "not public"
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.state.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "TLS only"
  }

  assert {
    condition     = output.backend.use_lockfile && output.backend.key == "prod/terraform.tfstate"
    error_message = "the backend's settings"
  }

  assert {
    condition     = aws_kms_key.state.enable_key_rotation
    error_message = "rotated"
  }

  assert {
    condition     = output.role_arns.image != null
    error_message = "prod holds the registry"
  }
}

run "without_registry" {
  command = plan

  variables {
    holds_image_registry    = false
    create_autoscaling_role = false
  }

  assert {
    condition     = output.role_arns.image == null && length(aws_iam_service_linked_role.autoscaling) == 0
    error_message = "no role for what is not there"
  }
}

run "refuses_an_unknown_environment" {
  command = plan

  variables {
    environment = "qa"
  }

  expect_failures = [var.environment]
}
