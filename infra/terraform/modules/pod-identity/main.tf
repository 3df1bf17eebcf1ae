# One IAM role a service account, by EKS Pod Identity: no keys, no annotations, nothing shared.
# A role that is too narrow shows as AccessDenied in that component's log. Tests: tests/pod_identity.tftest.hcl.

locals {
  service_accounts = {
    api                      = { namespace = var.namespace, name = "${var.release}-api", statements = local.api_statements }
    worker                   = { namespace = var.namespace, name = "${var.release}-worker", statements = local.worker_statements }
    migrate                  = { namespace = var.namespace, name = "${var.release}-migrate", statements = local.migrate_statements }
    keda                     = { namespace = "keda", name = "keda-operator", statements = local.keda_statements }
    external-secrets         = { namespace = "external-secrets", name = "external-secrets", statements = local.external_secrets_statements }
    load-balancer-controller = { namespace = "kube-system", name = "aws-load-balancer-controller", statements = local.load_balancer_statements }
    cluster-autoscaler       = { namespace = "kube-system", name = "cluster-autoscaler", statements = local.autoscaler_statements }
  }

  # TagSession: Pod Identity puts namespace and service account into session tags; without it nothing is assumed.
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnEquals    = { "aws:SourceArn" = var.cluster_arn }
      }
    }]
  })
}

resource "aws_iam_role" "this" {
  for_each = local.service_accounts

  name                 = "${var.name}-${each.key}"
  permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
  description          = "Pod Identity of ${each.value.namespace}/${each.value.name}"
  assume_role_policy   = local.trust
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "this" {
  for_each = local.service_accounts

  name   = "allow"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = each.value.statements })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = { for key, account in local.service_accounts : key => account if var.associate }

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.name
  role_arn        = aws_iam_role.this[each.key].arn
}
