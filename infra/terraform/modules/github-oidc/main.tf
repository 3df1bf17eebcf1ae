# What the pipeline may do here, without a stored key: three roles, each bound to one way a job can start.
# A wrong subject shows as "Not authorized to perform sts:AssumeRoleWithWebIdentity". Tests: tests/github_oidc.tftest.hcl.

locals {
  issuer       = "token.actions.githubusercontent.com"
  provider_arn = "arn:aws:iam::${var.account_id}:oidc-provider/${local.issuer}"

  # StringEquals only, both claims. With `environment:` in a job the subject names the environment, not the branch;
  # the cure for that is this list, never a wildcard.
  subjects = {
    plan  = ["repo:${var.repository}:pull_request", "repo:${var.repository}:ref:refs/heads/main"] # main: the nightly drift plan
    image = ["repo:${var.repository}:ref:refs/heads/main"]
    apply = ["repo:${var.repository}:environment:${var.environment}"]
  }

  trust = {
    for role, subjects in local.subjects : role => jsonencode({
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Action    = "sts:AssumeRoleWithWebIdentity"
        Principal = { Federated = local.provider_arn }
        Condition = {
          StringEquals = {
            "${local.issuer}:aud" = "sts.amazonaws.com"
            "${local.issuer}:sub" = subjects
          }
        }
      }]
    })
  }

  state_object_arn = "${var.state_bucket_arn}/${var.environment}/*"
}

resource "aws_iam_openid_connect_provider" "this" {
  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

# --- plan: reads everything, changes nothing, not even the lock (plan -lock=false).

resource "aws_iam_role" "plan" {
  name                 = "gha-plan"
  description          = "Pull requests: terraform plan"
  assume_role_policy   = local.trust.plan
  max_session_duration = 3600
}

resource "aws_iam_role_policy_attachment" "plan" {
  role       = aws_iam_role.plan.name
  policy_arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
}

resource "aws_iam_role_policy" "plan" {
  name = "state-and-nothing-secret"
  role = aws_iam_role.plan.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.state_kms_key_arn] },
      {
        # ReadOnlyAccess can read secrets' metadata; a pull request from anybody must not read what they hold.
        Effect   = "Deny"
        Action   = ["secretsmanager:GetSecretValue", "ssm:GetParameter*", "rds-db:connect", "kafka-cluster:ReadData"]
        Resource = "*"
      },
    ]
  })
}

# --- image: pushes to one repository, from main only.

resource "aws_iam_role" "image" {
  count = var.image_repository_arn == null ? 0 : 1

  name                 = "gha-image"
  description          = "main: build, sign and push the image"
  assume_role_policy   = local.trust.image
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "image" {
  count = var.image_repository_arn == null ? 0 : 1

  name = "push-one-repository"
  role = aws_iam_role.image[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["ecr:GetAuthorizationToken"], Resource = "*" },
      {
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
          "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = [var.image_repository_arn]
      },
    ]
  })
}
