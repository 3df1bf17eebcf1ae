# Immutable, scanned, encrypted; leftovers go.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  repository       = "plumbline"
  kms_key_arn      = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  pull_account_ids = ["444455556666"]
}

run "repository" {
  command = plan

  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.this.image_scanning_configuration[0].scan_on_push
    error_message = "tags stay, pushes are scanned"
  }

  assert {
    condition     = aws_ecr_repository.this.encryption_configuration[0].encryption_type == "KMS"
    error_message = "encrypted with our key"
  }

  assert {
    condition     = jsondecode(aws_ecr_lifecycle_policy.this.policy).rules[0].selection.tagStatus == "untagged" && jsondecode(aws_ecr_lifecycle_policy.this.policy).rules[1].selection.countNumber == 50
    error_message = "leftovers go, 50 images stay"
  }

  assert {
    condition     = alltrue([for action in jsondecode(aws_ecr_repository_policy.pull[0].policy).Statement[0].Action : !strcontains(action, "Put")]) && jsondecode(aws_ecr_repository_policy.pull[0].policy).Statement[0].Principal.AWS[0] == "arn:aws:iam::444455556666:root"
    error_message = "other accounts pull, none pushes"
  }
}

run "closed_without_other_accounts" {
  command = plan

  variables {
    pull_account_ids = []
  }

  assert {
    condition     = length(aws_ecr_repository_policy.pull) == 0
    error_message = "no policy, no outside"
  }
}

run "refuses_keeping_too_few" {
  command = plan

  variables {
    keep_images = 3
  }

  expect_failures = [var.keep_images]
}
