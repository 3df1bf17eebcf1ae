# --- apply: changes this environment, after its reviewers said yes. It makes nearly everything here, so it is fenced:
# by its subject, by a one-hour session, by names (it cannot touch the gha-* roles), and by the boundary that every
# role it makes must carry, so that it cannot make a role stronger than itself.

locals {
  boundary_arn = "arn:aws:iam::aws:policy/PowerUserAccess"
  own_roles    = "arn:aws:iam::${var.account_id}:role/${var.name}-*"
}

resource "aws_iam_role" "apply" {
  name                 = "gha-apply-${var.environment}"
  description          = "Environment ${var.environment}: terraform apply and helm upgrade"
  assume_role_policy   = local.trust.apply
  max_session_duration = 3600
}

resource "aws_iam_role_policy_attachment" "apply" {
  role       = aws_iam_role.apply.name
  policy_arn = local.boundary_arn
}

resource "aws_iam_role_policy" "apply" {
  name = "roles-of-this-environment"
  role = aws_iam_role.apply.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "MakeAndChangeRolesOnlyWithTheBoundary"
        Effect    = "Allow"
        Action    = ["iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:AttachRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary"]
        Resource  = [local.own_roles]
        Condition = { StringEquals = { "iam:PermissionsBoundary" = local.boundary_arn } }
      },
      {
        Sid    = "CareForRoles"
        Effect = "Allow"
        Action = [
          "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
          "iam:UpdateRole", "iam:UpdateRoleDescription", "iam:UpdateAssumeRolePolicy", "iam:TagRole", "iam:UntagRole", "iam:DeleteRole",
        ]
        Resource = [local.own_roles]
      },
      {
        Sid      = "HandRolesToServices"
        Effect   = "Allow"
        Action   = ["iam:PassRole"]
        Resource = [local.own_roles]
        Condition = {
          StringEquals = {
            "iam:PassedToService" = ["eks.amazonaws.com", "ec2.amazonaws.com", "pods.eks.amazonaws.com", "monitoring.rds.amazonaws.com", "vpc-flow-logs.amazonaws.com", "backup.amazonaws.com"]
          }
        }
      },
      {
        Sid      = "MakesContainersForSecretsButNeverReadsThem"
        Effect   = "Deny"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = "*"
      },
    ]
  })
}

# --- state: both Terraform roles. The lock is an object beside the state, so giving it back is a delete.

resource "aws_iam_role_policy" "state" {
  name = "state"
  role = aws_iam_role.apply.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["s3:ListBucket"], Resource = [var.state_bucket_arn] },
      { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject"], Resource = [local.state_object_arn] },
      { Effect = "Allow", Action = ["s3:DeleteObject"], Resource = ["${var.state_bucket_arn}/${var.environment}/*.tflock"] },
      { Effect = "Allow", Action = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.state_kms_key_arn] },
    ]
  })
}
