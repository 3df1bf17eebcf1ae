# Three roles, each bound to one way a job can start; no wildcard in any subject.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                 = "orders-prod"
  environment          = "prod"
  account_id           = "111122223333"
  repository           = "example/plumbline"
  state_bucket_arn     = "arn:aws:s3:::state"
  state_kms_key_arn    = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  image_repository_arn = "arn:aws:ecr:us-east-1:111122223333:repository/plumbline"
}

run "subjects" {
  command = plan

  assert {
    condition     = jsonencode(jsondecode(aws_iam_role.plan.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]) == jsonencode(["repo:example/plumbline:pull_request", "repo:example/plumbline:ref:refs/heads/main"])
    error_message = "plan: pull requests, and main for the nightly look"
  }

  assert {
    condition     = jsonencode(jsondecode(aws_iam_role.image[0].assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]) == jsonencode(["repo:example/plumbline:ref:refs/heads/main"])
    error_message = "image: main"
  }

  assert {
    condition     = jsonencode(jsondecode(aws_iam_role.apply.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]) == jsonencode(["repo:example/plumbline:environment:prod"])
    error_message = "apply: the environment with its reviewers"
  }

  assert {
    condition     = alltrue([for role in [aws_iam_role.plan, aws_iam_role.image[0], aws_iam_role.apply] : join(",", keys(jsondecode(role.assume_role_policy).Statement[0].Condition)) == "StringEquals" && jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com" && role.max_session_duration == 3600])
    error_message = "StringEquals only, our audience, one hour"
  }
}

run "rights" {
  command = plan

  assert {
    condition     = contains(flatten([for statement in jsondecode(aws_iam_role_policy.plan.policy).Statement : statement.Action if statement.Effect == "Deny"]), "secretsmanager:GetSecretValue")
    error_message = "a pull request never reads secrets"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.image[0].policy).Statement[1].Resource == ["arn:aws:ecr:us-east-1:111122223333:repository/plumbline"]
    error_message = "pushes to one repository"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.state.policy).Statement : statement.Resource == ["arn:aws:s3:::state/prod/*.tflock"] if contains(statement.Action, "s3:DeleteObject")])
    error_message = "deletes locks, not states"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.apply.policy).Statement[0].Condition.StringEquals["iam:PermissionsBoundary"] == "arn:aws:iam::aws:policy/PowerUserAccess"
    error_message = "makes no role without the boundary"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.apply.policy).Statement : statement.Resource == ["arn:aws:iam::111122223333:role/orders-prod-*"] if statement.Effect == "Allow"])
    error_message = "touches no gha-* role"
  }
}

run "no_registry_no_image_role" {
  command = plan

  variables {
    image_repository_arn = null
  }

  assert {
    condition     = length(aws_iam_role.image) == 0
    error_message = "only the account with the registry"
  }
}

run "refuses_a_wildcard_repository" {
  command = plan

  variables {
    repository = "example/*"
  }

  expect_failures = [var.repository]
}
